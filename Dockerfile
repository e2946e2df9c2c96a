# docker build -t stoa .        (podman: --format docker, or there is no health check)
#
# Docker 23 or newer or podman; nothing but the two images below is fetched from a registry. Who publishes the image says
# what it was built of: --build-arg REVISION=$(git rev-parse HEAD) --build-arg SOURCE=https://…

# The workspace without its sources. It changes when the dependencies do, and only then are they built again.
FROM rust:1.95.0-slim-trixie AS skeleton
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete \
    && for package in crates/* tests/bench; do mkdir -p "$package/src" && touch "$package/src/lib.rs" || exit; done \
    && find . -exec touch --date=@0 {} +

FROM rust:1.95.0-slim-trixie AS build
# rust-toolchain.toml also asks for rustfmt and clippy, which a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY --from=skeleton /src .
# That our own crates were built is forgotten: cargo goes by the times of files, and the real ones may be older.
RUN cargo build --release --locked -p stoa \
    && rm -rf target/release/.fingerprint/stoa*
COPY . .
RUN cargo build --release --locked -p stoa

FROM debian:trixie-slim
# git and ssh are for modules that are fetched directly. They and the certificates are to be the newest ones.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git openssh-client \
    && rm -rf /var/lib/apt/lists/*
# The group root may write there, so that another user works too, as OpenShift gives to each project (--user 12345:0).
RUN groupadd --gid 10001 stoa \
    && useradd --uid 10001 --gid stoa --home-dir /var/lib/stoa --no-create-home --shell /usr/sbin/nologin stoa \
    && install -d -m 0770 -o stoa -g root /var/lib/stoa
COPY LICENSE LICENSE-APACHE LICENSE-MIT /usr/local/share/doc/stoa/
COPY --from=build /src/target/release/stoa /usr/local/bin/stoa
# HOME is for git and ssh when the user has no entry in /etc/passwd. `docker stop` kills after 10 s: the drain ends sooner.
# The allocator shares two heaps among the threads, and what is large it gives back when it is free: a sixth less memory at the
# peak.
ENV HOME=/var/lib/stoa \
    STOA_DATA_DIR=/var/lib/stoa \
    STOA_LISTEN=0.0.0.0:3000 \
    STOA_SERVER_DRAIN_TIMEOUT=8s \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=131072
# By number, so that an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /var/lib/stoa
VOLUME /var/lib/stoa
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["stoa", "healthcheck"]
ENTRYPOINT ["stoa"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="stoa" \
      org.opencontainers.image.description="A caching Go module proxy" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim"
