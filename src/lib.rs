//! remediator: from a firing alert to an audit record, without ever becoming the outage.
//!
//! The walk of one alert is the map of the rooms: `detect` (is it a real alert of ours, and is it true, right now,
//! here?), [`decide`] (what should be done? pure), [`guard`] (may we, now? atomic), `act` (drain, restart, readmit),
//! `verify` (did it help?), `audit` (what happened, and why).

pub mod act;
pub mod alert;
pub mod api;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod decide;
pub mod detect;
pub mod edge;
pub mod episodes;
pub mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod heartbeat;
pub mod kept;
pub mod metrics;
pub mod moment;
pub mod mutant;
pub mod page;
pub mod period;
pub mod pipeline;
pub mod reason;
pub mod sim;
pub mod size;
pub mod target;
pub mod toil;
pub mod verify;
pub mod watch;
pub mod words;
pub mod world;
