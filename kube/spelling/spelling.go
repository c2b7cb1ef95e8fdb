// Package spelling finds the name that somebody meant who wrote another one.
package spelling

import "strings"

// Nearest returns the one of known that takes the fewest letters to add, take away,
// change or swap with their neighbour to be name, and no more than most; the first of
// several. Capitals count as small letters. "" means that there is none.
func Nearest(name string, known []string, most int) string {
	nearest := ""
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d <= most {
			nearest, most = k, d-1
		}
	}
	return nearest
}

// distance is the one of optimal string alignment, in bytes.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
