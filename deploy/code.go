//go:build !shipped

package deploy

import "embed"

// code is empty. `make dist` builds binaries that contain the function's code, with the tag shipped.
var code embed.FS
