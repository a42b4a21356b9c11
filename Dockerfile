# The image: one static binary, the list of what it is made of, and a directory for the outbox. No shell, no libc,
# no CA bundle (the public roots are in the binary; others come by cello.ca_file).
#
#   docker build -t cello-relay --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker run --rm cello-relay check-config
#
# Each platform builds natively (docker buildx --platform linux/amd64,linux/arm64).

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /build

# Static: glibc 2.34 and newer bring the readers of /etc/hosts and resolv.conf in the library itself, so that names
# resolve without any file of its own; search domains and ndots hold as everywhere.
# These flags stand for those of .cargo/config.toml. Nothing unwinds through C.
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs -C llvm-args=-inline-threshold=75"
ENV CFLAGS="-fno-asynchronous-unwind-tables -fno-unwind-tables"

# Dependencies first, behind a program that does nothing: a layer that lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches/relay \
    && echo 'fn main() {}' | tee src/main.rs >benches/relay/main.rs \
    && touch src/lib.rs \
    && cargo build --locked --release --bin cello-relay --target "$(uname -m)-unknown-linux-gnu"

COPY deploy/sbom deploy/sbom
COPY config config
COPY src src
ARG REVISION=unknown
# Newer than the program that does nothing, whatever time the files were checked out with.
RUN touch src/lib.rs src/main.rs \
    && CELLO_RELAY_REVISION="${REVISION}" \
        cargo build --locked --release --bin cello-relay --target "$(uname -m)-unknown-linux-gnu" \
    && mkdir -p /root-fs/usr/local/bin /root-fs/usr/share/sbom /root-fs/var/lib/cello-relay \
    && cp "target/$(uname -m)-unknown-linux-gnu/release/cello-relay" /root-fs/usr/local/bin/ \
    && deploy/sbom "$(uname -m)-unknown-linux-gnu" >/root-fs/usr/share/sbom/cello-relay.cdx.json \
    && chmod 1777 /root-fs/var/lib/cello-relay \
    && chroot /root-fs /usr/local/bin/cello-relay --version

FROM scratch
COPY --from=build /root-fs/ /

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cello-relay" \
      org.opencontainers.image.description="Takes referral events over HTTP on localhost, stores them durably and forwards them to Cello" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A number, so that runAsNonRoot can be checked; any other works too. Put a volume on the outbox's directory.
USER 65532:65532
ENV PATH=/usr/local/bin \
    CELLO_RELAY_OUTBOX__DIR=/var/lib/cello-relay
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["cello-relay", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/cello-relay"]
CMD ["run"]
