"""SAXSdog's data reduction and network, without sockets: calibrations, curves, the queue, the wire, merging with logs."""
