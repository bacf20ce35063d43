# syntax=docker/dockerfile:1
# The proving service:
#   docker build -t zkinfer .                          for CPUs (target cpu)
#   docker build -t zkinfer:cuda --target cuda .       for CUDA devices, and for CPUs where there is none (docs/GPU.md)
# Podman and Buildah need --format docker: the format that they choose by themselves has no health checks.
#
# Arguments:
#   RUST_VERSION    as in rust-toolchain.toml
#   TARGET_CPU      for example x86-64-v3: lets the compiler use that processor's instructions everywhere (default: any processor; the kernels choose
#                   their vectors at run time, whatever it is)
#
# The images hold two programs, a C library and certificates of public authorities: no shell, no package manager. Everything runs as user 10001, with a
# read-only root file system if asked (`docker run --read-only`); what is written lies in /data. Nothing of CUDA is needed to build: the device's code is
# in the binary, and the driver's library comes from the host through its container toolkit.

ARG RUST_VERSION=1.95.0

FROM docker.io/library/rust:${RUST_VERSION}-slim-bookworm AS source
ARG RUST_VERSION
ARG TARGET_CPU=""
# The image holds this toolchain; without this rustup would fetch it again with the components of rust-toolchain.toml.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} RUSTFLAGS="${TARGET_CPU:+-C target-cpu=${TARGET_CPU}}"
WORKDIR /src
COPY . .
# What the final stages take, for there nothing could make a folder.
RUN install -d /out/programs /out/licences /out/empty && install -m 0644 -t /out/licences LICENSE-MIT LICENSE-APACHE

FROM source AS build-cpu
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p zkinfer-server -p zkinfer-cli --bins \
    && install -t /out/programs target/release/zkinferd target/release/zkinfer

FROM source AS build-cuda
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p zkinfer-server -p zkinfer-cli --bins --features zkinfer-server/cuda,zkinfer-cli/cuda \
    && install -t /out/programs target/release/zkinferd target/release/zkinfer

# glibc, libgcc and public authorities.
FROM gcr.io/distroless/cc-debian12 AS runtime
LABEL org.opencontainers.image.title="zkinfer" org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.description="Proves inferences of committed neural networks"
COPY --from=source /out/licences/ /usr/share/doc/zkinfer/
# New volumes take their owner from these.
COPY --from=source --chown=10001:10001 /out/empty/ /data/
COPY --from=source --chown=10001:10001 /out/empty/ /etc/zkinfer/
USER 10001:10001
ENV HOME=/data ZKINFER_HTTP_LISTEN=127.0.0.1:9464
WORKDIR /data
VOLUME /data
EXPOSE 50061 50062 9464
# Without a shell the program asks itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["/usr/local/bin/zkinferd", "health"]
# Beyond loopback the daemon wants authentication and TLS (docs/ACCESS.md): mount the folder with the file that `zkinferd keys create` made, certificate
# and key, readable by user 10001. The folder, not the files: a changed file is a new one, which a mount of the old one would not show.
ENTRYPOINT ["/usr/local/bin/zkinferd"]
CMD ["serve", "--data-dir", "/data", "--listen", "0.0.0.0:50061", "--keys", "/etc/zkinfer/keys", \
    "--tls-cert", "/etc/zkinfer/tls.crt", "--tls-key", "/etc/zkinfer/tls.key"]

FROM runtime AS cuda
# What the container toolkit is to bring: compute is libcuda, utility is NVML. Some hosts mount the driver below /usr/local/nvidia and update no cache of
# the loader, hence the path.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility LD_LIBRARY_PATH=/usr/local/nvidia/lib64
COPY --from=build-cuda /out/programs/ /usr/local/bin/

FROM runtime AS cpu
COPY --from=build-cpu /out/programs/ /usr/local/bin/
