//! What may be asked, by whom, and what the answers are.

use expect_test::expect;
use nova_types::ImageKind;

use super::*;

fn path(id: ImageId) -> String {
    format!("/_images/{id}/image")
}

#[tokio::test]
async fn an_image_is_sent_whole_in_part_and_as_a_head() {
    let bench = Bench::new().await;
    let (id, sha256) = bench.register(ImageKind::Machine, b"0123456789").await;
    let path = path(id);
    let etag = format!("\"{sha256}\"");
    let whole = bench.signed("GET", &path, "").await;
    assert_eq!((whole.status(), whole.body.as_slice()), ("200", &b"0123456789"[..]));
    assert_eq!(whole.header("etag"), Some(etag.as_str()));
    assert_eq!((whole.header("content-length"), whole.header("accept-ranges")), (Some("10"), Some("bytes")));
    let head = bench.signed("HEAD", &path, "").await;
    assert_eq!((head.status(), head.header("content-length"), head.body.len()), ("200", Some("10"), 0));

    for (headers, status, body, range) in [
        ("range: bytes=4-\r\n".to_owned(), "206", "456789", Some("bytes 4-9/10")),
        ("range: bytes=2-3\r\n".to_owned(), "206", "23", Some("bytes 2-3/10")),
        (format!("range: bytes=9-\r\nif-range: {etag}\r\n"), "206", "9", Some("bytes 9-9/10")),
        ("range: bytes=9-\r\nif-range: \"other\"\r\n".to_owned(), "200", "0123456789", None),
    ] {
        let answer = bench.signed("GET", &path, &headers).await;
        assert_eq!((answer.status(), answer.body.as_slice()), (status, body.as_bytes()), "{headers}");
        assert_eq!(answer.header("content-range"), range, "{headers}");
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{headers}");
    }
    let beyond = bench.signed("GET", &path, "range: bytes=10-\r\n").await;
    assert_eq!((beyond.refusal().as_str(), beyond.header("content-range")), ("416 InvalidRange", Some("bytes */10")));
}

#[tokio::test]
async fn who_does_not_sign_rightly_learns_nothing() {
    let bench = Bench::new().await;
    let (id, _) = bench.register(ImageKind::Machine, b"secret").await;
    let (path, other) = (path(id), "/_images/ami-7fffffff/image");
    let foreign = CloudKey::from_hex(&"00".repeat(32)).unwrap();
    let at = |path: &str, minutes| bench.key.sign("GET", path, SystemClock.now() + minutes * Duration::from_secs(60));
    let long_ago = bench.key.sign("GET", &path, SystemClock.now() - Duration::from_secs(700));
    for (authorization, code) in [
        (String::new(), "403 AccessDenied"),
        ("AWS alice:acme:c2lnbmF0dXJl".to_owned(), "403 AccessDenied"),
        ("Nova-HMAC-SHA256 1:00".to_owned(), "403 RequestTimeTooSkewed"),
        (long_ago, "403 RequestTimeTooSkewed"),
        (at(&path, 11), "403 RequestTimeTooSkewed"),
        (foreign.sign("GET", &path, SystemClock.now()), "403 SignatureDoesNotMatch"),
        (at("/_images/ami-00000009/image", 0), "403 SignatureDoesNotMatch"),
        (bench.key.sign("HEAD", &path, SystemClock.now()), "403 SignatureDoesNotMatch"),
    ] {
        let header =
            if authorization.is_empty() { String::new() } else { format!("authorization: {authorization}\r\n") };
        for path in [path.as_str(), other] {
            let answer = bench.ask("GET", path, &header).await;
            assert!(answer.refusal().starts_with("403 "), "{path} {authorization}: {}", answer.refusal());
        }
        assert_eq!(bench.ask("GET", &path, &header).await.refusal(), code, "{authorization}");
    }
    let skewed = format!("authorization: {}\r\n", at(&path, 4));
    assert_eq!(bench.ask("GET", &path, &skewed).await.body, b"secret", "a clock may be four minutes ahead");
}

#[tokio::test]
async fn only_the_file_of_an_image_can_be_reached_and_all_else_is_absent_alike() {
    let bench = Bench::new().await;
    let (id, _) = bench.register(ImageKind::Machine, b"bytes").await;
    std::fs::write(bench.folder.path().join("images/note"), "x").unwrap();
    std::fs::create_dir_all(bench.folder.path().join("images/x/image")).unwrap();
    let (folder, _) = bench.register(ImageKind::Kernel, b"kernel").await;
    std::fs::remove_file(bench.images().path(folder)).unwrap();
    std::fs::create_dir(bench.images().path(folder)).unwrap();
    let (short, _) = bench.register(ImageKind::Ramdisk, b"ramdisk").await;
    std::fs::write(bench.images().path(short), "half").unwrap();
    for tricky in [
        "/_images/ami-7fffffff/image".to_owned(),
        path(id).replace("ami", "aki"),
        path(folder),
        path(short),
        "/_images/../note".to_owned(),
        "/_images/..%2Fnote/image".to_owned(),
        "/_images/%2e%2e/image".to_owned(),
        "/_images/x/image".to_owned(),
        "/_images//image".to_owned(),
        "/_images/".to_owned(),
        format!("/_images/{id}"),
        format!("/_images/{id}/"),
        format!("/_images/{id}/image/"),
        format!("/_images/{id}/../{id}/image"),
        format!("/_images/{id}/image/../../note"),
        format!("/_images/{id}%00/image"),
        format!("/_images/{id}/info.json"),
    ] {
        assert_eq!(bench.signed("GET", &tricky, "").await.refusal(), "404 NoSuchKey", "{tricky}");
    }
    let absent = bench.signed("GET", "/_images/ami-7fffffff/image", "").await;
    let text = String::from_utf8(absent.body.clone()).unwrap();
    let request = text.split("<RequestId>").nth(1).unwrap()[..20].to_owned();
    expect![[r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <Error><Code>NoSuchKey</Code><Message>there is no such image</Message><Resource>/_images/ami-7fffffff/image</Resource><RequestId>ID</RequestId></Error>"#]]
    .assert_eq(&text.replace(&request, "ID"));
    assert_eq!(absent.header("content-type"), Some("application/xml"));
    let query = format!("{}?../../note", path(id));
    assert_eq!(bench.ask("GET", &query, &bench.authorization("GET", &path(id))).await.body, b"bytes");
}

#[tokio::test]
async fn an_image_cannot_be_changed_and_s3_is_not_there_yet() {
    let bench = Bench::new().await;
    let (id, _) = bench.register(ImageKind::Machine, b"bytes").await;
    for method in ["PUT", "POST", "DELETE", "PATCH"] {
        let refused = bench.signed(method, &path(id), "content-length: 0\r\n").await;
        assert_eq!(refused.refusal(), "405 MethodNotAllowed");
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    }
    for (method, path) in
        [("GET", "/"), ("PUT", "/bucket"), ("GET", "/bucket/key"), ("GET", "/_images"), ("PUT", "/_images")]
    {
        assert_eq!(bench.ask(method, path, "").await.refusal(), "501 NotImplemented", "{method} {path}");
    }
}

#[tokio::test]
async fn a_deregistered_image_is_given_as_long_as_its_file_is_there() {
    let bench = Bench::new().await;
    let (id, _) = bench.register(ImageKind::Machine, b"bytes").await;
    images::deregister(&mut bench.db.write().await.unwrap(), None, id).await.unwrap();
    assert_eq!(bench.signed("GET", &path(id), "").await.body, b"bytes");
    bench.images().remove(id).unwrap();
    assert_eq!(bench.signed("GET", &path(id), "").await.refusal(), "404 NoSuchKey");
}

#[tokio::test]
async fn a_database_that_is_away_is_told_with_a_time_to_try_again() {
    let bench = Bench::new().await;
    let (id, _) = bench.register(ImageKind::Machine, b"bytes").await;
    bench.db.close().await;
    let refused = bench.signed("GET", &path(id), "").await;
    assert_eq!((refused.refusal().as_str(), refused.header("retry-after")), ("503 ServiceUnavailable", Some("1")));
}
