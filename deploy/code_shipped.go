//go:build shipped

package deploy

import "embed"

//go:embed code/*.zip
var code embed.FS
