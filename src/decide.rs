//! What should be done? Synchronous, pure and total: one playbook, one set of evidence, one instant, one decision.

pub mod decision;
pub mod evidence;
pub mod playbook;
