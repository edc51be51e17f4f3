//! Instances on one host, by driver: Docker and sim.
