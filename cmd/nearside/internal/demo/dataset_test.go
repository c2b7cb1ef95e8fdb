package demo

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDataSetIsWhole(t *testing.T) {
	require.Less(t, len(citiesCSV), 250<<10, "the binary carries it")
	cities, err := loadCities()
	require.NoError(t, err)
	require.Len(t, cities, 4000)
	ids := make(map[uint64]bool)
	for i, c := range cities {
		require.False(t, ids[c.ID], "id %d is there twice", c.ID)
		ids[c.ID] = true
		require.NotEmpty(t, c.Name, "id %d", c.ID)
		require.Len(t, c.Country, 2, "id %d", c.ID)
		require.Contains(t, c.Timezone, "/", "id %d", c.ID)
		require.EqualValues(t, firstState, c.Version)
		if i > 0 {
			require.LessOrEqual(t, c.Population, cities[i-1].Population, "by population")
		}
	}
	require.Equal(t, city{ID: 1796236, Name: "Shanghai", Country: "CN", Population: 24874500, Timezone: "Asia/Shanghai", Version: 1}, cities[0])
}
