//! What every target needs.

use std::alloc::System;

/// What a door may hold on the heap at any one moment, of Rust's own allocations: the largest of the caps that it has to keep is a
/// page of 8 MiB, and an input here is a thousandth of that. An allocation beyond it ends the process, which libFuzzer
/// counts as a crash. What SQLite and libFuzzer allocate is bound by `-rss_limit_mb` alone.
pub const HEAP: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, HEAP);

/// libFuzzer's hook ends the process at every panic. One kind is expected and caught: promql-parser panics on numbers that
/// no duration can hold (`x[1e30]`), and our reader takes that for a syntax error. All others still end the process.
pub fn quiet() {
    let fatal = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let expected = panic.location().is_some_and(|place| {
            place.file().contains("promql-parser") || place.file().ends_with("library/core/src/time.rs")
        });
        if !expected {
            fatal(panic);
        }
    }));
}
