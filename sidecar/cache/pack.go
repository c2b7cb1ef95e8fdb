package cache

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside-cache/nearside/localstore"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// packer compresses values, and expands none beyond the largest that is stored.
type packer struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

var newPacker = sync.OnceValues(func() (*packer, error) {
	// A single segment says how long the value is also where that is below 256 bytes.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &packer{encoder, decoder}, nil
})

// pack returns the form in which value is stored, and whether that is compressed:
// when the policy says so and it is shorter. The stored form says how long value is.
func (c *Cache) pack(value []byte, p *policy.Namespace) (stored []byte, packed bool) {
	if p.CompressOver <= 0 || int64(len(value)) < int64(p.CompressOver) {
		return value, false
	}
	z, err := newPacker()
	if err != nil {
		return value, false
	}
	if out := z.encoder.EncodeAll(value, make([]byte, 0, len(value)/2)); len(out) < len(value) {
		return out, true
	}
	return value, false
}

// unpack expands what stands in b from skip on, as m says that it is stored. false
// says that it cannot: then there is no value to serve (I10).
func (c *Cache) unpack(b []byte, skip int, m localstore.Meta) ([]byte, bool) {
	if !m.Extra.Packed {
		return b, true
	}
	out, err := c.expand(append([]byte(nil), b[skip:]...), b[:skip])
	if err != nil {
		c.log.Error("a compressed value cannot be expanded: memory is corrupted", "error", err)
		return b[:skip], false
	}
	return out, true
}

func (c *Cache) expand(stored, dst []byte) ([]byte, error) {
	z, err := newPacker()
	if err != nil {
		return nil, err
	}
	size, err := unpackedSize(stored)
	if err == nil && size > c.maxValue { // before it is allocated
		err = fmt.Errorf("it says that it has %d bytes: at most %d are stored", size, c.maxValue)
	}
	if err != nil {
		return nil, err
	}
	return z.decoder.DecodeAll(stored, dst)
}

// unpackedSize is the length in bytes of the value that stored is the packed form of.
func unpackedSize(stored []byte) (int, error) {
	var h zstd.Header
	switch err := h.Decode(stored); {
	case err != nil:
		return 0, err
	case !h.HasFCS || h.FrameContentSize > math.MaxInt32:
		return 0, errors.New("it does not say how long it is")
	}
	return int(h.FrameContentSize), nil
}

// stored returns a copy of the value of the key's entry, dead or not.
func (c *Cache) stored(key string) (value []byte, m localstore.Meta, ok bool) {
	if value, m, ok = c.store.Get(key, nil); ok {
		value, ok = c.unpack(value, 0, m)
	}
	return value, m, ok
}

// sized returns the stamps of the key's entry with the length of its value, which is
// not that of its packed form.
func (c *Cache) sized(key string) (localstore.Meta, bool) {
	m, ok := c.store.Head(key)
	if !ok || !m.Extra.Packed {
		return m, ok
	}
	value, m, ok := c.store.Get(key, nil) // another one may have come
	if !ok || !m.Extra.Packed {
		return m, ok
	}
	size, err := unpackedSize(value)
	m.Size = size
	return m, err == nil
}
