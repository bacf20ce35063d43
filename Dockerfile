# syntax=docker/dockerfile:1
# The proving service, for CPUs:   docker build -t zkinfer .
#
# Arguments:
#   RUST_VERSION    as in rust-toolchain.toml
#   TARGET_CPU      for example x86-64-v3 or native: lets plonky2 use the vector instructions of that processor (default: any processor)
#   CARGO_FEATURES  zkinfer-server/cuda makes the daemon prove on CUDA devices (docs/GPU.md; the driver is loaded at run time, and nothing of CUDA is
#                   needed to build)

ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
ARG RUST_VERSION
ARG TARGET_CPU=""
ARG CARGO_FEATURES=""
# The image holds this toolchain; without this rustup would fetch it again with the components of rust-toolchain.toml.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    RUSTFLAGS="${TARGET_CPU:+-C target-cpu=${TARGET_CPU}}" \
    cargo build --release --locked -p zkinfer-server -p zkinfer-cli --bins ${CARGO_FEATURES:+--features "${CARGO_FEATURES}"} \
    && install -D -t /out target/release/zkinferd target/release/zkinfer

FROM debian:bookworm-slim
RUN groupadd --system --gid 10001 zkinfer \
    && useradd --system --uid 10001 --gid zkinfer --home-dir /data --shell /usr/sbin/nologin zkinfer \
    && install -d -o zkinfer -g zkinfer -m 0700 /data
COPY --from=build /out/zkinferd /out/zkinfer /usr/local/bin/
# For artifact stores that are reached by TLS (docs/STORAGE.md).
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/zkinfer/
USER 10001:10001
VOLUME /data
EXPOSE 50061
# Beyond loopback the daemon wants authentication and TLS (docs/ACCESS.md): mount the folder with the file that `zkinferd keys create` made, certificate
# and key, readable by user 10001. The folder, not the files: a changed file is a new one, which a mount of the old one would not show.
ENTRYPOINT ["zkinferd"]
CMD ["serve", "--data-dir", "/data", "--listen", "0.0.0.0:50061", "--keys", "/etc/zkinfer/keys", \
    "--tls-cert", "/etc/zkinfer/tls.crt", "--tls-key", "/etc/zkinfer/tls.key"]
