//! `GET /_images/<id>/image`: the bytes of an image, or those of them that are asked for.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use nova_db::images;
use nova_types::ImageId;
use nova_types::image::Image;

use crate::answer::Store;
use crate::file::{self, Opened};
use crate::refusal::Refusal;

/// The bytes that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    /// One beyond the last.
    end: u64,
    is_all: bool,
}

pub(crate) async fn serve(store: &Store, id: ImageId, head: &Parts) -> Result<Response<Body>, Refusal> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Refusal::Method);
    }
    // Also one that was deregistered, as long as its file is there: a host may have to start a guest of it.
    let image = images::get_any(&mut store.db.read().await?, id).await?;
    let Some(Image { sha256: Some(sha256), size_bytes: Some(size_bytes), .. }) = image else {
        return Err(Refusal::NoSuchImage);
    };
    let Opened { file, length } = file::open(&store.images, id).await?.ok_or(Refusal::NoSuchImage)?;
    if length != size_bytes {
        // Another cloud's image of that number, or half a copy; whoever fetches would find out at the end only.
        tracing::error!(image.id = %id, length, size_bytes, "The file of {id} has not the length that was registered.");
        return Err(Refusal::NoSuchImage);
    }
    let etag = format!("\"{sha256}\"");
    let span = span(&head.headers, &etag, length)?;
    let mut response = Response::new(Body::from_stream(file::bytes(file, span.first, span.end)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(span.end - span.first));
    headers.extend(HeaderValue::try_from(etag).map(|etag| (header::ETAG, etag)));
    if !span.is_all {
        let range = format!("bytes {}-{}/{length}", span.first, span.end - 1);
        headers.extend(HeaderValue::try_from(range).map(|range| (header::CONTENT_RANGE, range)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Which bytes are asked for. A range that cannot be read, several ranges, and a range of other content mean all bytes.
fn span(headers: &HeaderMap, etag: &str, length: u64) -> Result<Span, Refusal> {
    let all = Span { first: 0, end: length, is_all: true };
    let same = headers.get(header::IF_RANGE).is_none_or(|wanted| wanted == etag);
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).filter(|_| same);
    let Some(range) = range.and_then(|range| http_range_header::parse_range_header(range).ok()) else {
        return Ok(all);
    };
    match range.validate(length).map_err(|_| Refusal::Range { size_bytes: length })?.as_slice() {
        [range] => Ok(Span { first: *range.start(), end: range.end() + 1, is_all: false }),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(range: &str, if_range: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        headers.extend(if_range.map(|etag| (header::IF_RANGE, etag.parse().unwrap())));
        match span(&headers, "\"abc\"", 100) {
            Ok(Span { is_all: true, .. }) => "all".to_owned(),
            Ok(Span { first, end, .. }) => format!("{first}..{end}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn a_range_means_what_the_standard_says() {
        for (range, wanted) in [
            ("bytes=0-", "0..100"),
            ("bytes=10-19", "10..20"),
            ("bytes=99-", "99..100"),
            ("bytes=90-200", "90..100"),
            ("bytes=-5", "95..100"),
            ("bytes=100-", "the image has no such bytes"),
            ("bytes=5-4", "the image has no such bytes"),
            ("bytes=0-0,5-6", "all"),
            ("lines=1-2", "all"),
            ("bytes=a-b", "all"),
            ("", "all"),
            ("bytes=18446744073709551615-18446744073709551616", "all"),
        ] {
            assert_eq!(spans(range, None), wanted, "{range}");
        }
        assert_eq!(spans("bytes=10-19", Some("\"abc\"")), "10..20");
        for other in ["\"abd\"", "W/\"abc\"", "Thu, 26 Nov 2026 00:00:00 GMT"] {
            assert_eq!(spans("bytes=10-19", Some(other)), "all", "{other}");
        }
    }
}
