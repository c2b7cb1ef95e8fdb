package session

// globMatch reports whether text matches a pattern of SCAN: * for any text, ?
// for any byte, [abc], [a-z] and [^a] for classes, \ before a byte that means
// itself. It takes time in proportion to the product of the lengths at most.
func globMatch(pattern, text string) bool {
	p, t := 0, 0
	star, from := -1, 0 // the last *, and where in text it is being tried
	for t < len(text) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, from = p, t
				p++
				continue
			}
			if next, ok := globOne(pattern, p, text[t]); ok {
				p, t = next, t+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, t = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches one byte against the element of pattern at p and returns where
// the next element begins.
func globOne(pattern string, p int, c byte) (next int, ok bool) {
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		return globClass(pattern, p+1, c)
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return p + 1, pattern[p] == c
}

// globClass matches c against the class whose inside begins at p.
func globClass(pattern string, p int, c byte) (next int, ok bool) {
	not := p < len(pattern) && pattern[p] == '^'
	if not {
		p++
	}
	found := false
	for p < len(pattern) && pattern[p] != ']' {
		if pattern[p] == '\\' && p+1 < len(pattern) {
			p++
		}
		lo, hi := pattern[p], pattern[p]
		if p+2 < len(pattern) && pattern[p+1] == '-' && pattern[p+2] != ']' {
			hi = pattern[p+2]
			p += 2
		}
		found = found || min(lo, hi) <= c && c <= max(lo, hi)
		p++
	}
	return min(p+1, len(pattern)), found != not
}
