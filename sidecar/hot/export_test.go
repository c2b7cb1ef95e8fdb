package hot

// Sample is Note for a read that is counted.
var Sample = (*Top).sample

// Held returns what grows: the keys that can be found, and the bytes of all keys.
func Held(t *Top) (keys, bytes int) {
	for _, c := range t.counters {
		bytes += cap(c.key)
	}
	return len(t.index), bytes
}

// SampleEvery is how many reads a sample stands for.
const SampleEvery = sampleEvery
