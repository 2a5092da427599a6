# The image is the binary and the libraries it is linked against, nothing else. test/image.test.ts assembles the same root
# file system from the COPY lines of this file and runs it.
FROM oven/bun:1.4.5-debian AS build
WORKDIR /build
COPY package.json bun.lock bunfig.toml ./
COPY patches ./patches
RUN bun install --frozen-lockfile
COPY . .
ARG PSQLQUEUE_COMMIT=unknown
ENV PSQLQUEUE_COMMIT=${PSQLQUEUE_COMMIT}
RUN bun run build && mkdir /empty

FROM scratch AS libraries-amd64
COPY --from=build /lib64/ld-linux-x86-64.so.2 /lib64/ld-linux-x86-64.so.2
COPY --from=build /lib/x86_64-linux-gnu/libc.so.6 /lib/x86_64-linux-gnu/libc.so.6
COPY --from=build /lib/x86_64-linux-gnu/libpthread.so.0 /lib/x86_64-linux-gnu/libpthread.so.0
COPY --from=build /lib/x86_64-linux-gnu/libdl.so.2 /lib/x86_64-linux-gnu/libdl.so.2
COPY --from=build /lib/x86_64-linux-gnu/libm.so.6 /lib/x86_64-linux-gnu/libm.so.6

FROM scratch AS libraries-arm64
COPY --from=build /lib/ld-linux-aarch64.so.1 /lib/ld-linux-aarch64.so.1
COPY --from=build /lib/aarch64-linux-gnu/libc.so.6 /lib/aarch64-linux-gnu/libc.so.6
COPY --from=build /lib/aarch64-linux-gnu/libpthread.so.0 /lib/aarch64-linux-gnu/libpthread.so.0
COPY --from=build /lib/aarch64-linux-gnu/libdl.so.2 /lib/aarch64-linux-gnu/libdl.so.2
COPY --from=build /lib/aarch64-linux-gnu/libm.so.6 /lib/aarch64-linux-gnu/libm.so.6

FROM libraries-${TARGETARCH}
COPY --from=build /build/dist/psqlqueue /psqlqueue
# Owned by the user below, and so is the volume that Docker makes of it.
COPY --from=build --chown=65532:65532 /empty /data
ENV PSQLQUEUE_DATA_DIR=/data
VOLUME /data
USER 65532:65532
EXPOSE 8000 9090
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["/psqlqueue", "healthcheck"]
ENTRYPOINT ["/psqlqueue"]
CMD ["server"]
