# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Debian's point releases drop the versions before them, so a pinned version would break the build
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends cmake && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# the caches outlive a build: after an edit only our own crate is compiled again
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --release --bin portcullis && \
    install -D --strip target/release/portcullis /image/usr/local/bin/portcullis && \
    install -D --mode=0644 conf/container.toml /image/etc/portcullis/portcullis.toml && \
    install -d --owner=65532 --group=65532 --mode=0750 /image/var/lib/portcullis

# glibc, libgcc and the public CA certificates; no shell, no package manager
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A reverse-proxy API gateway whose every decision can be explained, tested and audited" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
USER 65532:65532
WORKDIR /var/lib/portcullis
VOLUME /var/lib/portcullis
# traffic; the admin address (9901) stays on the container's loopback until the configuration says otherwise
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/portcullis", "health", "--admin", "127.0.0.1:9901"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run", "-c", "/etc/portcullis/portcullis.toml"]
