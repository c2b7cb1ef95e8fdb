# syntax=docker/dockerfile:1
# The image: one static binary, the authorities to trust, and nothing else.
#   docker buildx build --build-arg VERSION=v1.2.3 --platform linux/amd64,linux/arm64 -t nearside .
# Released images are made by ko from .ko.yaml, with the same flags.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
ENV GOCACHE=/cache/build
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
# Two builds of one commit are the same byte for byte.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/cache/build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -buildid= -X main.version=$VERSION" -o /out/nearside ./cmd/nearside

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Where every image of nearside finds it by name alone, which probes do.
COPY --from=build /out/nearside /usr/local/bin/nearside
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["nearside"]
CMD ["serve"]
