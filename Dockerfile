# syntax=docker/dockerfile:1
# The gateway alone, as an unprivileged user. Its configuration is mounted at /etc/headgate/config.toml; what it keeps
# (the embedded broker's files, and the spool of webhooks) is under /var/lib/headgate.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin headgate \
    && install -D target/release/headgate /out/headgate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/headgate --create-home headgate
COPY --from=build /out/headgate /usr/local/bin/headgate
USER 10001
WORKDIR /var/lib/headgate
ENV HEADGATE_CONFIG=/etc/headgate/config.toml
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["headgate"]
CMD ["run"]
