// Package plot draws lines as SVG.
package plot

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// Point is a point of a series.
type Point struct{ X, Y float64 }

// Series is a named line.
type Series struct {
	Name   string
	Points []Point
}

// Chart is some series over the same axes.
type Chart struct {
	Title, X, Y string
	Series      []Series
	FromZero    bool // the vertical axis begins at 0
}

const (
	width, height            = 720, 420
	left, right, top, bottom = 64, 150, 40, 52
)

var colours = []string{"#0b6e4f", "#c1440e", "#2b59c3", "#8a6d00", "#7b2d8b", "#444444"}

// SVG draws the chart.
func (c Chart) SVG() []byte {
	x0, x1, y0, y1 := c.bounds()
	px := func(x float64) float64 { return left + (x-x0)/(x1-x0)*(width-left-right) }
	py := func(y float64) float64 { return height - bottom - (y-y0)/(y1-y0)*(height-top-bottom) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="15">%s</text>`+"\n", left, html.EscapeString(c.Title))
	for _, y := range ticks(y0, y1) {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, py(y), width-right, left-6, py(y)+4, y)
	}
	for _, x := range ticks(x0, x1) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", px(x), height-bottom+18, x)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", left, height-12, html.EscapeString(c.X))
	fmt.Fprintf(&b, `<text x="14" y="%d" transform="rotate(-90 14 %d)">%s</text>`+"\n", height-bottom, height-bottom, html.EscapeString(c.Y))
	for i, s := range c.Series {
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
		for _, p := range s.Points {
			fmt.Fprintf(&b, "%.1f,%.1f ", px(p.X), py(p.Y))
		}
		fmt.Fprintf(&b, `"/><path d="M%d %dh18" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`+"\n",
			width-right+12, top+20*i, colour, width-right+36, top+20*i+4, html.EscapeString(s.Name))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// bounds returns what the axes show.
func (c Chart) bounds() (x0, x1, y0, y1 float64) {
	x0, x1, y0, y1 = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range c.Series {
		for _, p := range s.Points {
			x0, x1, y0, y1 = min(x0, p.X), max(x1, p.X), min(y0, p.Y), max(y1, p.Y)
		}
	}
	if c.FromZero {
		y0 = 0
	}
	return x0, max(x1, x0+1), y0, max(y1, y0+1)
}

// ticks returns round numbers between a and b, about five.
func ticks(a, b float64) (at []float64) {
	step := math.Pow(10, math.Floor(math.Log10((b-a)/5)))
	for _, m := range []float64{5, 2} {
		if (b-a)/(step*m) >= 4 {
			step *= m
			break
		}
	}
	for i := math.Ceil(a / step); i*step <= b; i++ {
		at = append(at, math.Round(i*step*1e6)/1e6)
	}
	return at
}
