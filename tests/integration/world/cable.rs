//! A member's only cable, in the test's own hands: a proxy on loopback that knows
//! CONNECT, and can be cut.
//!
//! A node that listens nowhere and dials through it is reached by nobody, and reaches
//! nobody, while it is cut: connections that stand end, new ones are closed unanswered.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A request's head; nobody's here is longer.
const HEAD_MAX_BYTES: usize = 4 * 1024;

/// A cable; cut for ever when dropped.
pub(crate) struct Cable {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    is_over: bool,
    /// Both ends of all that runs, or has run.
    streams: Vec<TcpStream>,
    /// How many connections were let through.
    through: u64,
}

impl Cable {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::<State>::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&shared).is_over {
                    return;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || stream.map(|stream| carry(stream, &shared)));
            }
        });
        Self { address, state }
    }

    /// What a node is told to dial through.
    pub(crate) fn proxy(&self) -> String {
        self.address.to_string()
    }

    /// How many connections went through it so far.
    pub(crate) fn through(&self) -> u64 {
        lock(&self.state).through
    }

    /// Cuts it.
    pub(crate) fn cut(&self) {
        let mut state = lock(&self.state);
        state.is_cut = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        lock(&self.state).is_cut = false;
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
        lock(&self.state).is_over = true;
        let _ = TcpStream::connect(self.address);
    }
}

/// Carries one connection, unless or until the cable is cut.
fn carry(mut near: TcpStream, state: &Mutex<State>) {
    let Some(target) = target(&mut near) else {
        return;
    };
    let Ok(mut far) = TcpStream::connect(target) else {
        let _ = near.write_all(b"HTTP/1.1 502 Bad gateway\r\n\r\n");
        return;
    };
    {
        let mut state = lock(state);
        if state.is_cut {
            return;
        }
        state.through += 1;
        let ends = [&near, &far].map(|end| end.try_clone().unwrap());
        state.streams.extend(ends);
    }
    if near
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .is_err()
    {
        return;
    }
    let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    let back = thread::spawn(move || pump(&mut back_from, &mut back_to));
    pump(&mut near, &mut far);
    let _ = back.join();
}

fn pump(from: &mut TcpStream, to: &mut TcpStream) {
    let _ = std::io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Reads `CONNECT target HTTP/1.1` and the headers, byte by byte: what follows is TLS.
fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_MAX_BYTES || stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    Some(head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
