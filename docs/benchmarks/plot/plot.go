// Package plot draws the results of benchmarks as SVG: rows of dots with the
// range around them, on an axis of ratios.
package plot

import (
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// Dot is a median with the lowest and the highest value, all above 0.
type Dot struct {
	Series       string // who it is of; decides the colour
	Low, Mid, Up float64
}

// Row is what stands on one line of a panel.
type Row struct {
	Label string
	Dots  []Dot
}

// Panel is one quantity.
type Panel struct {
	Title string
	Rows  []Row
}

// Chart is panels above one another, whose axis is logarithmic around 1.
type Chart struct {
	Title  string
	One    string   // what 1 stands for
	Series []string // in the order of the legend
	Panels []Panel
}

// Measures in pixels.
const (
	labels    = 320 // to the left of the axis
	axis      = 520
	margin    = 20
	line      = 13 // between the dots of a row
	gap       = 10 // between rows
	head      = 46 // of a panel
	lettering = `font-family="system-ui, sans-serif" font-size="12"`
)

// colours of series, which people who do not see colours tell apart by their
// brightness.
var colours = []string{"#0b6e4f", "#e07a1f", "#7a7a7a", "#2b4fa0"}

// reach is as far as an axis goes at most, in powers of 2 on each side of 1:
// what is beyond is drawn at its end.
const reach = 5

// Write writes the chart. The error is that of w, or tells that a dot has a value
// that is no ratio or a series that the chart does not have.
func (c Chart) Write(w io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	d := drawing{chart: c, powers: c.powers(), y: 3*margin + margin/2}
	for _, p := range c.Panels {
		d.panel(p)
	}
	width := labels + axis + 2*margin
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" %s>
<rect width="100%%" height="100%%" fill="#ffffff"/>
<text x="%d" y="%d" font-weight="bold" font-size="15">%s</text>
%s%s</svg>
`, width, d.y+margin, width, d.y+margin, lettering, margin, margin+6, html.EscapeString(c.Title), c.legend(), d.out.String())
	return err
}

func (c Chart) check() error {
	if len(c.Series) > len(colours) {
		return fmt.Errorf("plot: %d series, at most %d", len(c.Series), len(colours))
	}
	for _, p := range c.Panels {
		for _, r := range p.Rows {
			for _, d := range r.Dots {
				if !(d.Low > 0 && d.Low <= d.Mid && d.Mid <= d.Up && d.Up < math.Inf(1)) {
					return fmt.Errorf("plot: %s: %v is no range of ratios", r.Label, d)
				}
				if !slices.Contains(c.Series, d.Series) {
					return errors.New("plot: no series " + d.Series)
				}
			}
		}
	}
	return nil
}

// powers is how many powers of 2 the axis shows on each side of 1, as far as the
// medians go.
func (c Chart) powers() float64 {
	most := 1.0
	for _, p := range c.Panels {
		for _, r := range p.Rows {
			for _, d := range r.Dots {
				most = max(most, math.Ceil(math.Abs(math.Log2(d.Mid))))
			}
		}
	}
	return min(most, reach)
}

func (c Chart) legend() string {
	var b strings.Builder
	x := margin
	for i, s := range c.Series {
		fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="4" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			x+4, 2*margin+8, colours[i], x+13, 2*margin+12, html.EscapeString(s))
		x += 40 + 8*len(s)
	}
	return b.String()
}

// drawing is a chart as it becomes longer.
type drawing struct {
	chart  Chart
	powers float64
	y      int
	out    strings.Builder
}

// x is where a ratio stands.
func (d *drawing) x(ratio float64) float64 {
	at := min(max(math.Log2(ratio), -d.powers), d.powers)
	return labels + margin + axis*(at+d.powers)/(2*d.powers)
}

func (d *drawing) panel(p Panel) {
	height := 0
	for _, r := range p.Rows {
		height += line*len(r.Dots) + gap
	}
	fmt.Fprintf(&d.out, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", margin, d.y+16, html.EscapeString(p.Title))
	top := d.y + head
	for power := -d.powers; power <= d.powers; power++ {
		d.tick(math.Exp2(power), top, height)
	}
	d.y = top
	for _, r := range p.Rows {
		d.row(r)
	}
	d.y += margin
}

func (d *drawing) tick(ratio float64, top, height int) {
	x, colour, text := d.x(ratio), "#dddddd", fmt.Sprintf("%g", ratio)
	if ratio == 1 {
		colour, text = "#000000", d.chart.One
	} else if ratio < 1 {
		text = fmt.Sprintf("1/%g", 1/ratio)
	}
	fmt.Fprintf(&d.out, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%s</text>`+"\n",
		x, top-4, x, top+height, colour, x, top-10, html.EscapeString(text))
}

func (d *drawing) row(r Row) {
	middle := d.y + (line*len(r.Dots)+gap)/2
	fmt.Fprintf(&d.out, `<text x="%d" y="%d">%s</text>`+"\n", margin, middle+4, html.EscapeString(r.Label))
	d.y += gap / 2
	for _, dot := range r.Dots {
		y := d.y + line/2
		colour := colours[slices.Index(d.chart.Series, dot.Series)]
		fmt.Fprintf(&d.out, `<g stroke="%s" fill="%s"><title>%s</title><line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke-width="2" opacity="0.5"/><circle cx="%.1f" cy="%d" r="4"/></g>`+"\n",
			colour, colour, html.EscapeString(fmt.Sprintf("%s: %.2f (%.2f–%.2f)", dot.Series, dot.Mid, dot.Low, dot.Up)),
			d.x(dot.Low), y, d.x(dot.Up), y, d.x(dot.Mid), y)
		d.y += line
	}
	d.y += gap - gap/2
}
