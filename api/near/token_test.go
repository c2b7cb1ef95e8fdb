package near_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
)

func TestTokens(t *testing.T) {
	parse := func(s string) near.Token {
		token, err := near.ParseToken(s)
		require.NoError(t, err)
		return token
	}
	applied := parse("18a5c0ffee-2-1f")
	require.Equal(t, near.Token{Created: 0x18a5c0ffee, Fork: 2, Seq: 31}, applied)
	require.Equal(t, near.Token{Created: 1, Seq: 2, Version: 255}, parse("1-0-2-ff"))
	for token, covered := range map[string]bool{
		"18a5c0ffee-2-1f": true, "18a5c0ffee-2-1": true, "18a5c0ffee-2-1f-9": true,
		"18a5c0ffee-2-20": false, "18a5c0ffee-1-1": false, "18a5c0ffef-2-1": false,
	} {
		require.Equal(t, covered, applied.Covers(parse(token)), token)
	}
	for _, bad := range []string{"", "1", "1-2", "1-2-3-4-5", "x-1-1", "1--1", "1-1-11111111111111111"} {
		_, err := near.ParseToken(bad)
		require.ErrorIs(t, err, near.ErrBadToken, bad)
	}
}

func TestNamespaceOf(t *testing.T) {
	for key, ns := range map[string]string{"product:1": "product", "a:b:c": "a", "plain": "default", ":x": "default", "": "default"} {
		require.Equal(t, ns, near.NamespaceOf(key), key)
	}
}
