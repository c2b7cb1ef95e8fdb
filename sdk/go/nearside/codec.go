package nearside

import "encoding/json"

// Codec turns values into bytes and back. It must be safe for concurrent use. What
// Decode returns must not be a view of its argument that is written to.
type Codec[T any] interface {
	Encode(v T) ([]byte, error)
	Decode(b []byte) (T, error)
}

// JSON is the Codec of a Source that names none.
type JSON[T any] struct{}

// Encode implements Codec.
func (JSON[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

// Decode implements Codec.
func (JSON[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// Text is a Codec that keeps a string as its bytes.
type Text struct{}

// Encode implements Codec.
func (Text) Encode(v string) ([]byte, error) { return []byte(v), nil }

// Decode implements Codec.
func (Text) Decode(b []byte) (string, error) { return string(b), nil }

// Raw is a Codec for bytes as they are. They are shared: nobody may change them.
type Raw struct{}

// Encode implements Codec.
func (Raw) Encode(v []byte) ([]byte, error) { return v, nil }

// Decode implements Codec.
func (Raw) Decode(b []byte) ([]byte, error) { return b, nil }
