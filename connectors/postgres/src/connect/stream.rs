//! A socket that can go unwatched.
//!
//! A socket that a runtime watches wakes it for every byte that arrives, whether anybody wants to read or not, and it is
//! the sender who pays for the waking: a walsender sends three times for each row. While bytes gather on purpose (see
//! [`crate::frame`]) nobody has to be woken, so the socket is taken from the runtime's watch, and put back when a
//! reader has to wait for it.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::fd::AsRawFd,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// The socket, once for reading and once for writing: the two are watched apart.
pub(crate) struct Stream<S: AsRawFd> {
    reading: Arc<Mutex<Watch<S>>>,
    writing: AsyncFd<S>,
}

/// The reading side.
enum Watch<S: AsRawFd> {
    On(AsyncFd<S>),
    Off(S),
    /// Could not be put under watch; tells so once more.
    Broken,
}

/// Takes a socket from the runtime's watch, until it is read from.
pub(crate) trait Unwatch: Send + Sync {
    /// Nobody is woken from now on.
    fn unwatch(&self);
}

impl<S: AsRawFd> Stream<S> {
    /// `reading` and `writing` are the same socket under two descriptors, neither of them blocking.
    pub(crate) fn new(reading: S, writing: S) -> io::Result<Self> {
        let writing = AsyncFd::with_interest(writing, Interest::WRITABLE)?;
        Ok(Self { reading: Arc::new(Mutex::new(Watch::Off(reading))), writing })
    }
}

impl<S: AsRawFd + Send + Sync + 'static> Stream<S> {
    /// The way to leave it unwatched, for whoever reads from the other end of something that it is wrapped in.
    pub(crate) fn unwatcher(&self) -> Arc<dyn Unwatch> {
        Arc::new(Unwatcher(Arc::clone(&self.reading)))
    }
}

struct Unwatcher<S: AsRawFd>(Arc<Mutex<Watch<S>>>);

impl<S: AsRawFd + Send + Sync> Unwatch for Unwatcher<S> {
    fn unwatch(&self) {
        let mut watch = lock(&self.0);
        *watch = match std::mem::replace(&mut *watch, Watch::Broken) {
            Watch::On(socket) => Watch::Off(socket.into_inner()),
            other => other,
        };
    }
}

fn lock<S: AsRawFd>(watch: &Mutex<Watch<S>>) -> MutexGuard<'_, Watch<S>> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsRawFd + Unpin> AsyncRead for Stream<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut watch = lock(&self.reading);
        let room = buffer.initialize_unfilled();
        let read = loop {
            match &*watch {
                Watch::Off(socket) => match { socket }.read(room) {
                    Ok(read) => break read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if let Watch::Off(socket) = std::mem::replace(&mut *watch, Watch::Broken) {
                            // Reports at once what has arrived since.
                            *watch = Watch::On(AsyncFd::with_interest(socket, Interest::READABLE)?);
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Watch::On(socket) => {
                    let mut ready = ready!(socket.poll_read_ready(context))?;
                    match ready.try_io(|socket| socket.get_ref().read(room)) {
                        Ok(Ok(read)) => {
                            if read < room.len() {
                                // The socket is empty; what comes next tells of itself.
                                ready.clear_ready();
                            }
                            break read;
                        }
                        Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                        Ok(Err(error)) => return Poll::Ready(Err(error)),
                        Err(_would_block) => {}
                    }
                }
                Watch::Broken => return Poll::Ready(Err(ErrorKind::NotConnected.into())),
            }
        };
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsRawFd + Unpin> AsyncWrite for Stream<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.writing.poll_write_ready(context))?;
            match ready.try_io(|socket| socket.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    /// A socket holds nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nobody waits for the end of our stream: dropping it closes the socket.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair() -> (Stream<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours.try_clone().unwrap(), ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn bytes_that_came_while_unwatched_are_read_and_those_after_wake() {
        let (mut stream, mut peer) = pair();
        let unwatcher = stream.unwatcher();
        let mut room = [0; 16];
        for round in 0..3 {
            // Waiting puts it under watch.
            let writer = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                peer.write_all(b"one").unwrap();
                peer
            });
            assert_eq!(stream.read(&mut room).await.unwrap(), 3, "round {round}");
            peer = writer.join().unwrap();
            unwatcher.unwatch();
            peer.write_all(b"two and three").unwrap();
            assert_eq!(stream.read(&mut room).await.unwrap(), 13);
            unwatcher.unwatch();
            unwatcher.unwatch();
        }
        drop(peer);
        assert_eq!(stream.read(&mut room).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_full_socket_makes_the_writer_wait() {
        let (mut stream, mut peer) = pair();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all.len()
        });
        stream.write_all(&vec![7; 4 << 20]).await.unwrap();
        drop(stream);
        assert_eq!(reader.join().unwrap(), 4 << 20);
    }
}
