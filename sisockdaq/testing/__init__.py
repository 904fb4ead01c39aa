"""What tests of nodes need: a real router, a network in one fixture, and fakes."""
