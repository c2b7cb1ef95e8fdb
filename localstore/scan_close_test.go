package localstore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A step that was under way when the Store was closed must not leave its tags behind.
func TestScanDoesNotRestInAClosedStore(t *testing.T) {
	var s scans
	s.close()
	require.Zero(t, s.rest(scan{}))
	require.Empty(t, s.open)
}
