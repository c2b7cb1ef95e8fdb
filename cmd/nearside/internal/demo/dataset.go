package demo

import (
	_ "embed" // for citiesCSV
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
)

// citiesCSV is described, with its source and licence, in cities/README.md.
//
//go:embed cities/cities.csv
var citiesCSV string

// attribution is what the licence of the data asks to be said.
const attribution = "GeoNames (geonames.org), CC BY 4.0"

// city is one record of the data set, and the value that is cached for it.
type city struct {
	ID         uint64 `json:"id"`
	Name       string `json:"name"`
	Country    string `json:"country"`
	Population uint64 `json:"population"`
	Timezone   string `json:"timezone"`
	// Version counts the commits of this record, the loaded one included.
	Version uint64 `json:"version"`
}

func (c city) key() string { return "city:" + strconv.FormatUint(c.ID, 10) }

// loadCities returns the records of the data set, the most populous first.
func loadCities() ([]city, error) {
	records, err := csv.NewReader(strings.NewReader(citiesCSV)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("data set: %w", err)
	}
	records = records[1:] // the header
	cities := make([]city, 0, len(records))
	for i, r := range records {
		id, err := strconv.ParseUint(r[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("data set: record %d: id: %w", i, err)
		}
		population, err := strconv.ParseUint(r[3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("data set: record %d: population: %w", i, err)
		}
		cities = append(cities, city{ID: id, Name: r[1], Country: r[2], Population: population, Timezone: r[4], Version: 1})
	}
	return cities, nil
}
