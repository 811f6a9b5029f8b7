//! Whole-service tests: the service against the simulators, over HTTP and wire only.

mod graph_adapter;
