//! Bodies: read whole, never above a cap, and never more of them at a time than there is memory for.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::sync::SemaphorePermit;

use super::Face;
use super::problem::Problem;

/// What one permit of [`Face`]'s memory stands for.
const UNIT: usize = 1024;
/// Bodies of the largest size that may be held at a time. A storm of small ones is not slowed by it.
const LARGE_BODIES: usize = 8;
/// Largest body of an order, in bytes: a few names and a sentence.
pub const MAX_ORDER: usize = 64 * 1024;

/// Permits for a face whose largest body has `cap` bytes.
pub fn memory(cap: usize) -> usize {
    units(cap) * LARGE_BODIES
}

/// Permits for the orders of a face: so many as there are connections.
pub fn memory_for_orders() -> usize {
    units(MAX_ORDER) * 512
}

/// A body, and the memory that is set aside for it until this is dropped.
pub struct Held<'f> {
    pub bytes: Bytes,
    _memory: SemaphorePermit<'f>,
}

/// Reads the body of at most `cap` bytes. What is above is read and thrown away up to as much again, so that the caller
/// gets to see the answer instead of a broken pipe.
///
/// # Errors
/// 413 above the cap; 400 when the caller broke off.
pub async fn read<'f>(face: &'f Face, headers: &HeaderMap, mut body: Body, cap: usize) -> Result<Held<'f>, Problem> {
    let too_large = || {
        let detail = format!(
            "the body is larger than {cap} bytes; raise limits.body here, or let Alertmanager send smaller groups (group_by)"
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    if told.is_some_and(|length: usize| length > cap * 2) {
        return Err(too_large());
    }
    let memory = set_aside(face, told.unwrap_or(cap).min(cap), cap).await?;
    let mut bytes = Vec::with_capacity(told.unwrap_or(0).min(cap));
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad("body_broken_off", "the body ended before it was complete"))?;
        if let Ok(data) = frame.into_data() {
            seen = seen.saturating_add(data.len());
            if seen <= cap {
                bytes.extend_from_slice(&data);
            } else if seen > cap * 2 {
                break;
            }
        }
    }
    if seen > cap {
        return Err(too_large());
    }
    Ok(Held { bytes: bytes.into(), _memory: memory })
}

/// Orders have a place of their own: whoever may only deliver must not be able to keep a person from pausing.
async fn set_aside(face: &Face, bytes: usize, cap: usize) -> Result<SemaphorePermit<'_>, Problem> {
    let units = u32::try_from(units(bytes)).unwrap_or(u32::MAX);
    let memory = if cap <= MAX_ORDER { &face.orders } else { &face.memory };
    memory.acquire_many(units).await.map_err(|_| super::problem::stopping())
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).max(1)
}
