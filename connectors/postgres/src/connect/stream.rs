//! A socket that can go unwatched.
//!
//! A socket that a runtime watches wakes it for every byte that arrives, whether anybody wants to read or not, and it is
//! the sender who pays for the waking: a walsender sends three times for each row. While bytes gather on purpose (see
//! [`crate::frame`]) nobody has to be woken, so the socket is taken from the runtime's watch, and put back when a
//! reader has to wait for it.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net,
    os::unix,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// The socket, watched or not.
pub(crate) struct Stream<S: Watched>(Arc<Mutex<State<S>>>);

struct State<S: Watched> {
    socket: Socket<S>,
    /// A writer waits for room, and has to be woken.
    writer_waits: bool,
}

enum Socket<S: Watched> {
    Watched(S),
    Bare(S::Bare),
    /// Changing hands failed; it has told so.
    Lost,
}

/// A socket under the runtime's watch, and what it is without.
pub(crate) trait Watched: AsyncRead + AsyncWrite + Send + Unpin + Sized + 'static {
    /// The same socket, of no runtime; it does not block.
    type Bare: Send;
    fn into_bare(self) -> io::Result<Self::Bare>;
    fn from_bare(bare: Self::Bare) -> io::Result<Self>;
    fn read(bare: &Self::Bare, room: &mut [u8]) -> io::Result<usize>;
    fn write(bare: &Self::Bare, bytes: &[u8]) -> io::Result<usize>;
}

impl Watched for TcpStream {
    type Bare = net::TcpStream;

    fn into_bare(self) -> io::Result<Self::Bare> {
        self.into_std()
    }

    fn from_bare(bare: Self::Bare) -> io::Result<Self> {
        Self::from_std(bare)
    }

    fn read(mut bare: &Self::Bare, room: &mut [u8]) -> io::Result<usize> {
        bare.read(room)
    }

    fn write(mut bare: &Self::Bare, bytes: &[u8]) -> io::Result<usize> {
        bare.write(bytes)
    }
}

impl Watched for UnixStream {
    type Bare = unix::net::UnixStream;

    fn into_bare(self) -> io::Result<Self::Bare> {
        self.into_std()
    }

    fn from_bare(bare: Self::Bare) -> io::Result<Self> {
        Self::from_std(bare)
    }

    fn read(mut bare: &Self::Bare, room: &mut [u8]) -> io::Result<usize> {
        bare.read(room)
    }

    fn write(mut bare: &Self::Bare, bytes: &[u8]) -> io::Result<usize> {
        bare.write(bytes)
    }
}

/// Takes a socket from the runtime's watch, until somebody has to wait for it.
pub(crate) trait Unwatch: Send + Sync {
    /// The reader, who does not wait now, need not be woken from now on.
    fn unwatch(&self);
}

impl<S: Watched> Unwatch for Mutex<State<S>> {
    fn unwatch(&self) {
        let mut state = lock(self);
        if state.writer_waits {
            return;
        }
        state.socket = match std::mem::replace(&mut state.socket, Socket::Lost) {
            Socket::Watched(socket) => socket.into_bare().map_or(Socket::Lost, Socket::Bare),
            other => other,
        };
    }
}

fn lock<S: Watched>(state: &Mutex<State<S>>) -> MutexGuard<'_, State<S>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Watched> Stream<S> {
    /// A socket under the runtime's watch.
    pub(crate) fn new(socket: S) -> Self {
        Self(Arc::new(Mutex::new(State { socket: Socket::Watched(socket), writer_waits: false })))
    }

    /// The way to leave it unwatched, for whoever reads from the other end of something that it is wrapped in.
    pub(crate) fn unwatcher(&self) -> Arc<dyn Unwatch> {
        Arc::clone(&self.0) as Arc<dyn Unwatch>
    }
}

impl<S: Watched> State<S> {
    /// Tries without the runtime; where the socket would block, watches it and asks the runtime.
    fn poll<T>(
        &mut self,
        bare: impl FnOnce(&S::Bare) -> io::Result<T>,
        watched: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Socket::Bare(socket) = &self.socket {
            match bare(socket) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                done => return Poll::Ready(done),
            }
            if let Socket::Bare(socket) = std::mem::replace(&mut self.socket, Socket::Lost) {
                // What has arrived in between is told at once.
                self.socket = Socket::Watched(S::from_bare(socket)?);
            }
        }
        match &mut self.socket {
            Socket::Watched(socket) => watched(Pin::new(socket)),
            Socket::Bare(_) | Socket::Lost => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: Watched> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // One borrow for whichever of the two ways is gone.
        let buffer = std::cell::RefCell::new(buffer);
        lock(&self.0).poll(
            |socket| {
                let mut buffer = buffer.borrow_mut();
                let read = S::read(socket, buffer.initialize_unfilled())?;
                buffer.advance(read);
                Ok(())
            },
            |socket| socket.poll_read(context, &mut buffer.borrow_mut()),
        )
    }
}

impl<S: Watched> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        let written =
            state.poll(|socket| S::write(socket, bytes), |socket| socket.poll_write(context, bytes));
        state.writer_waits = written.is_pending();
        written
    }

    /// A socket holds nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut lock(&self.0).socket {
            Socket::Watched(socket) => Pin::new(socket).poll_shutdown(context),
            // Whoever wants to shut down is done with it: dropping closes it.
            Socket::Bare(_) | Socket::Lost => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair() -> (Stream<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::new(ours), theirs)
    }

    #[tokio::test]
    async fn bytes_that_came_while_unwatched_are_read_and_those_after_wake() {
        let (mut stream, mut peer) = pair();
        let unwatcher = stream.unwatcher();
        let mut room = [0; 16];
        for _ in 0..3 {
            // Waiting puts it under watch.
            let (read, written) = tokio::join!(stream.read(&mut room), async {
                tokio::task::yield_now().await;
                peer.write_all(b"one").await
            });
            assert_eq!((read.unwrap(), written.is_ok()), (3, true));
            unwatcher.unwatch();
            peer.write_all(b"two and three").await.unwrap();
            assert_eq!(stream.read(&mut room).await.unwrap(), 13);
            unwatcher.unwatch();
            unwatcher.unwatch();
        }
        drop(peer);
        assert_eq!(stream.read(&mut room).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_writer_who_waits_is_woken_even_if_the_reader_need_not_be() {
        let (mut stream, mut peer) = pair();
        let unwatcher = stream.unwatcher();
        unwatcher.unwatch();
        let many = vec![7; 4 << 20];
        let writing = stream.write_all(&many);
        let reading = async {
            let mut room = vec![0; 64 << 10];
            let mut left = many.len();
            while left > 0 {
                unwatcher.unwatch();
                left -= peer.read(&mut room).await.unwrap();
            }
        };
        tokio::join!(async { writing.await.unwrap() }, reading);
    }
}
