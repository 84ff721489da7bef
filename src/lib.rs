//! remediator: from a firing alert to an audit record, without ever becoming the outage.
//!
//! The walk of one alert is the map of the rooms: `detect` (is it a real alert of ours, and is it true, right now,
//! here?), [`decide`] (what should be done? pure), [`guard`] (may we, now? atomic), `act` (drain, restart, readmit),
//! `verify` (did it help?), `audit` (what happened, and why).

pub mod alert;
pub mod config;
pub mod decide;
pub mod edge;
pub mod event;
pub mod guard;
pub mod period;
pub mod reason;
pub mod target;
pub mod verify;
pub mod words;
pub mod world;
