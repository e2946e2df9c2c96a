FROM rust:1.95.0-slim-bookworm AS build
# rust-toolchain.toml also asks for rustfmt and clippy, which a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p stoa

FROM debian:bookworm-slim
# The certificates are to be the newest ones.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 stoa \
    && useradd --uid 10001 --gid stoa --home-dir /var/lib/stoa --no-create-home --shell /usr/sbin/nologin stoa \
    && install -d -m 0750 -o stoa -g stoa /var/lib/stoa
COPY --from=build /src/target/release/stoa /usr/local/bin/stoa
COPY --from=build /src/LICENSE /src/LICENSE-APACHE /src/LICENSE-MIT /usr/local/share/doc/stoa/
ENV STOA_LISTEN=0.0.0.0:3000 \
    STOA_DATA_DIR=/var/lib/stoa
# By number, so that an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /var/lib/stoa
VOLUME /var/lib/stoa
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["stoa", "healthcheck"]
ENTRYPOINT ["stoa"]
CMD ["serve"]
