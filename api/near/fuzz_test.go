package near_test

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/nearside-cache/nearside/api/near"
)

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzFrame reads frames of both directions: any bytes are refused or read, and what
// was read is written again so that it reads the same.
func FuzzFrame(f *testing.F) {
	for _, k := range near.Kinds() {
		r := rand.New(rand.NewPCG(4, uint64(k)))
		f.Add(near.Append(nil, k, 1, random(r, k)))
		m, _ := near.New(k)
		f.Add(near.Append(nil, k, 1, m))
	}
	f.Add([]byte{near.Magic, byte(near.KindGet), 0, 0, 0, 1, 0, 0, 0, 3, 0x91, 0xdf, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		h, body, err := near.Next(in)
		if err != nil {
			return
		}
		m, known := near.New(h.Kind)
		if !known {
			return
		}
		if err := near.Parse(body, m); err != nil {
			require.ErrorIs(t, err, near.ErrMalformed)
			return
		}
		again := near.Append(nil, h.Kind, h.ID, m)
		_, body, err = near.Next(again)
		require.NoError(t, err)
		back, _ := near.New(h.Kind)
		require.NoError(t, near.Parse(body, back))
		require.Equal(t, normal(m), normal(back))
		var fields []any
		require.NoError(t, msgpack.Unmarshal(body, &fields), "a library reads what we write")
	})
}
