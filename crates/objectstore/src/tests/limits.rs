//! Large images, slow clients, and how much memory that takes.

use tokio::time::Instant;

use super::*;

const MIB: usize = 1 << 20;
const SIZE: usize = 64 * MIB;

/// The memory of this process that is resident, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Asks, and reads the head of the answer; the rest is the caller's.
async fn open(bench: &Bench, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let head = bench.authorization("GET", path);
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut four = [0; 4];
    while &four != b"\r\n\r\n" {
        four.rotate_left(1);
        stream.read_exact(&mut four[3..]).await.unwrap();
    }
    stream
}

/// Reads to the end, in pieces; returns how much that was.
async fn drain(mut stream: TcpStream) -> usize {
    let (mut piece, mut count) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut piece).await.unwrap() {
            0 => return count,
            read => count += read,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_image_takes_no_memory_and_slow_clients_hold_nobody_up() {
    let bench = Bench::new().await;
    // Not zeros: those would be a hole, and no reading at all.
    let image: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n % 249).unwrap()).collect();
    let id = bench.register_large(&image).await;
    drop(image);
    let path = format!("/_images/{id}/image");
    assert_eq!(drain(open(&bench, &path).await).await, SIZE);
    let before = resident();
    // These read the head of their answer and no more.
    let mut slow = Vec::new();
    for _ in 0..32 {
        slow.push(open(&bench, &path).await);
    }
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(drain(open(&bench, &path).await).await, SIZE);
        let took = began.elapsed();
        println!("64 MiB in {took:?}, {:.0} MB/s", SIZE as f64 / 1e6 / took.as_secs_f64());
        assert!(took < SOON);
    }
    let grown = resident().saturating_sub(before);
    // Each holds a block that is being sent and two that are read ahead; 64 MiB each would be 2 GiB.
    assert!(grown < 48 * MIB, "{} MiB more than before", grown / MIB);
    let rest = drain(slow.pop().unwrap()).await;
    assert_eq!(rest, SIZE, "who was slow gets all the same");
}
