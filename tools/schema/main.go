// Command schema writes the JSON Schema of a type, from the Go types and their comments:
//
//	go run ./tools/schema internal/spot Outcome > docs/outcome.schema.json
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: schema DIRECTORY TYPE")
	}
	p, err := parse(args[0])
	if err != nil {
		return err
	}
	schema, err := p.schema(args[1])
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(schema)
}
