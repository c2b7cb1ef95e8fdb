package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Keys chooses the numbers of keys. It is used by one goroutine at a time.
type Keys interface {
	// Next returns a number below that of the keys.
	Next() uint64
}

// MaxZipf is the highest exponent that NewKeys takes: with more there is hardly
// more than one key.
const MaxZipf = 5

// NewKeys returns a choice among n keys, at least 1: Zipf's with the exponent s,
// number 0 being the most frequent; s = 0 chooses all of them alike.
func NewKeys(n uint64, s float64, r *rand.Rand) (Keys, error) {
	switch {
	case n < 1 || n > math.MaxInt32:
		return nil, fmt.Errorf("there are %d keys: want 1 to %d", n, math.MaxInt32)
	case !(s >= 0 && s <= MaxZipf):
		return nil, fmt.Errorf("zipf is %v: want 0, which chooses all keys alike, to %d", s, MaxZipf)
	case s == 0:
		return uniform{n, r}, nil
	}
	return newZipf(n, s, r), nil
}

type uniform struct {
	n uint64
	r *rand.Rand
}

func (u uniform) Next() uint64 { return u.r.Uint64N(u.n) }

// zipf samples by rejection-inversion (Hörmann and Derflinger 1996), which takes
// any exponent, unlike math/rand's, and no table.
type zipf struct {
	n            uint64
	s            float64
	r            *rand.Rand
	first, total float64 // the integral up to 1.5, less h(1), and up to n + 0.5
	accept       float64 // a sample this close to its integer needs no look
}

func newZipf(n uint64, s float64, r *rand.Rand) *zipf {
	z := &zipf{n: n, s: s, r: r}
	z.first = z.integral(1.5) - 1
	z.total = z.integral(float64(n) + 0.5)
	z.accept = 2 - z.inverse(z.integral(2.5)-z.h(2))
	return z
}

// Next implements Keys.
func (z *zipf) Next() uint64 {
	for {
		u := z.total + z.r.Float64()*(z.first-z.total)
		x := z.inverse(u)
		k := min(max(math.Floor(x+0.5), 1), float64(z.n))
		if k-x <= z.accept || u >= z.integral(k+0.5)-z.h(k) {
			return uint64(k) - 1
		}
	}
}

// h is the density that is to be sampled, x to the power of -s.
func (z *zipf) h(x float64) float64 { return math.Exp(-z.s * math.Log(x)) }

// integral is an antiderivative of h: (x^(1-s) - 1) / (1-s), or log x for s = 1.
func (z *zipf) integral(x float64) float64 {
	log := math.Log(x)
	return log * ratio(math.Expm1, (1-z.s)*log)
}

// inverse is the inverse of integral.
func (z *zipf) inverse(x float64) float64 {
	t := max(x*(1-z.s), -1) // below -1 by rounding only
	return math.Exp(x * ratio(math.Log1p, t))
}

// ratio is f(x) / x for a function with f(0) = 0 and f'(0) = 1.
func ratio(f func(float64) float64, x float64) float64 {
	if x == 0 {
		return 1
	}
	return f(x) / x
}
