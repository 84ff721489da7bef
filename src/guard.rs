//! May we, now? Every rail is evaluated and every refusal reported; nothing is consumed unless everything passes, and
//! then everything is consumed in one transaction together with the intent.
//!
//! `ledger` is what past entries add up to, `rails` compares it with a request, `permit` is leave to act as a type, and
//! `coordinate` is the only place that makes one. All of it is pure: the journal's single writer calls it, which is
//! what makes admission atomic.

pub mod breaker;
pub mod coordinate;
pub mod ledger;
pub mod permit;
pub mod rails;
pub mod view;
