package lambdalocal

import "testing"

// BenchmarkWarmInvoke is what the service adds to a function: the process does
// nothing but echo.
func BenchmarkWarmInvoke(b *testing.B) {
	s := testService(b, nil)
	invoke(b, s, `{}`)
	for b.Loop() {
		invoke(b, s, `{}`)
	}
}
