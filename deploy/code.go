//go:build !shipped

package deploy

import "embed"

// code is what Lambda runs. `make dist` builds binaries that carry it, with the tag shipped.
var code embed.FS
