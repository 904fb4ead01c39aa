"""SAXSdog's data reduction and network, without sockets: calibrations, curves, queue, wire, merging with logs."""
