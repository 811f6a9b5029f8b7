//! Närvaro keeps a telephone system in step with people's calendars.

// The flow, in its own order.
pub mod webhook;

pub mod queue;

pub mod turn;

pub mod calendar;

pub mod timetable;

pub mod decide;

pub mod presence;

pub mod subscription;

// The domain.
pub mod company;
pub mod health;
pub mod model;

// Outside systems.
pub mod graph;
pub mod pbx;
pub mod store;

// Edges and wiring.
pub mod admin;
pub mod app;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod telemetry;
