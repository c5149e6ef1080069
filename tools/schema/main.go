// Command schema writes the JSON Schema of the function's outcome, from the Go types and their comments:
//
//	go run ./tools/schema internal/spot > docs/outcome.schema.json
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
	if len(args) != 1 {
		return errors.New("say the directory of the package that has the type Outcome, and nothing else")
	}
	p, err := parse(args[0])
	if err != nil {
		return err
	}
	schema, err := p.schema("Outcome")
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(schema)
}
