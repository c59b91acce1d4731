//! Reading a request's body: within a deadline, under a cap before and after decompression, and within the budget of all
//! bodies together. What is over a cap is refused, never cut short.

use crate::budget::{Exhausted, Lease};
use bytes::{Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use hyper::body::Body;
use std::{future::poll_fn, io::Read, pin::Pin, time::Duration};

/// What is read of a body that was refused, so that its sender sees the answer.
const DISCARDED_BYTES: usize = 128 << 20;
/// For how long.
const DISCARDED_WITHIN: Duration = Duration::from_secs(2);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Over the cap, on the wire or decoded.
    TooLarge,
    /// Not complete within the deadline.
    TooSlow,
    /// All bodies together would take too much memory.
    NoRoom,
    /// The connection broke, or the encoding is not what the header says.
    Broken,
    /// A content encoding that is not known here.
    UnknownEncoding,
}

impl From<Exhausted> for Unread {
    fn from(_: Exhausted) -> Self {
        Self::NoRoom
    }
}

/// Reads a whole body of at most `most` bytes.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    mut body: B,
    most: usize,
    within: Duration,
    lease: &mut Lease,
) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > most as u64) {
        // Who asks first has not sent it.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(Unread::TooLarge);
    }
    let reading = async {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if first.len() + whole.len() + data.len() > most {
                return Err(Unread::TooLarge);
            }
            lease.grow(data.len())?;
            // Most bodies come in one piece, which then is not copied.
            if first.is_empty() && whole.is_empty() {
                first = data;
            } else {
                if whole.is_empty() {
                    whole.extend_from_slice(&std::mem::take(&mut first));
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    };
    let read = tokio::time::timeout(within, reading).await.map_err(|_| Unread::TooSlow)?;
    if matches!(read, Err(Unread::TooLarge | Unread::NoRoom)) {
        discard(body).await;
    }
    read
}

/// Reads on for a moment and throws away. A sender that is still writing when its connection is closed would not see the
/// answer, and come again with the same.
async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = DISCARDED_BYTES;
    let discarding = async {
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to its end makes no difference any more.
    let _ = tokio::time::timeout(DISCARDED_WITHIN, discarding).await;
}

/// A content coding that is undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// The body's coding, if it has one. One within another is refused: no provider sends it, and each could be a bomb.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Unread> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else { return Ok(None) };
        if codings.next().is_some() {
            return Err(Unread::UnknownEncoding);
        }
        match coding.as_bytes().trim_ascii() {
            coding if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") => Ok(None),
            coding if coding.eq_ignore_ascii_case(b"gzip") => Ok(Some(Self::Gzip)),
            coding if coding.eq_ignore_ascii_case(b"deflate") => Ok(Some(Self::Deflate)),
            _ => Err(Unread::UnknownEncoding),
        }
    }

    /// What the body was before. Whoever sent it is not known yet, and may have made a few bytes that take long to undo:
    /// not for a thread that others wait for.
    pub(crate) fn undo(self, body: &[u8], most: usize, lease: &mut Lease) -> Result<Bytes, Unread> {
        match self {
            Self::Gzip => inflate(GzDecoder::new(body), most, lease),
            Self::Deflate => inflate(ZlibDecoder::new(body), most, lease),
        }
    }
}

/// Memory is taken step by step, so that a bomb costs no more than the cap.
fn inflate(mut decoder: impl Read, most: usize, lease: &mut Lease) -> Result<Bytes, Unread> {
    const STEP: usize = 64 << 10;
    let mut whole = Vec::new();
    let mut leased = 0;
    loop {
        let begin = whole.len();
        let step = STEP.min(most + 1 - begin);
        if begin + step > leased {
            lease.grow(begin + step - leased)?;
            leased = begin + step;
        }
        whole.resize(begin + step, 0);
        let count = decoder.read(&mut whole[begin..]).map_err(|_| Unread::Broken)?;
        whole.truncate(begin + count);
        if count == 0 {
            return Ok(Bytes::from(whole));
        }
        if whole.len() > most {
            return Err(Unread::TooLarge);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::budget::Budget;
    use http::HeaderValue;
    use std::io::Write;

    fn gzip(content: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        Bytes::from(encoder.finish().unwrap())
    }

    fn encoded(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))])
    }

    fn deflate(content: &[u8]) -> Bytes {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        Bytes::from(encoder.finish().unwrap())
    }

    fn decode(headers: &HeaderMap, body: Bytes, most: usize, lease: &mut Lease) -> Result<Bytes, Unread> {
        match Coding::of(headers)? {
            Some(coding) => coding.undo(&body, most, lease),
            None => Ok(body),
        }
    }

    fn lease() -> Lease {
        Budget::new(64 << 20).lease()
    }

    #[test]
    fn gzip_is_undone_up_to_the_cap() {
        let body = gzip(&[b'a'; 100]);
        assert_eq!(
            decode(&encoded("GZip"), body.clone(), 100, &mut lease()).unwrap(),
            [b'a'; 100].as_slice()
        );
        assert_eq!(decode(&encoded("gzip"), body, 99, &mut lease()), Err(Unread::TooLarge));
        let body = deflate(&[b'a'; 100]);
        assert_eq!(
            decode(&encoded("deflate"), body.clone(), 100, &mut lease()).unwrap(),
            [b'a'; 100].as_slice()
        );
        assert_eq!(decode(&encoded("deflate"), body, 99, &mut lease()), Err(Unread::TooLarge));
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_cap() {
        let zeros = vec![0; 50 << 20];
        for (coding, bomb) in [("gzip", gzip(&zeros)), ("deflate", deflate(&zeros))] {
            assert!(bomb.len() < 100 << 10);
            assert_eq!(decode(&encoded(coding), bomb.clone(), 1 << 20, &mut lease()), Err(Unread::TooLarge));
            let mut small = Budget::new(4 << 20).lease();
            assert_eq!(decode(&encoded(coding), bomb, 25 << 20, &mut small), Err(Unread::NoRoom));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let plain = Bytes::from_static(b"{}");
        assert_eq!(decode(&HeaderMap::new(), plain.clone(), 9, &mut lease()), Ok(plain.clone()));
        assert_eq!(decode(&encoded("identity"), plain.clone(), 9, &mut lease()), Ok(plain.clone()));
        assert_eq!(decode(&encoded("gzip"), plain.clone(), 9, &mut lease()), Err(Unread::Broken));
        for unknown in ["br", "gzip, gzip", "gzip, identity"] {
            assert_eq!(
                decode(&encoded(unknown), plain.clone(), 9, &mut lease()),
                Err(Unread::UnknownEncoding)
            );
        }
        let mut twice = encoded("gzip");
        twice.append(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(decode(&twice, plain, 9, &mut lease()), Err(Unread::UnknownEncoding));
    }
}
