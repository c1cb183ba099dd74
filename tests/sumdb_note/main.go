// Opens a checkpoint of ours with Go's C2SP note reader, and refuses it changed.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var vector struct {
		Note     string `json:"note"`
		FeedVkey string `json:"feed_vkey"`
	}
	if err := json.Unmarshal(data, &vector); err != nil {
		return err
	}
	verifier, err := note.NewVerifier(vector.FeedVkey)
	if err != nil {
		return err
	}
	verifiers := note.VerifierList(verifier)
	opened, err := note.Open([]byte(vector.Note), verifiers)
	if err != nil {
		return err
	}
	if len(opened.Sigs) != 1 || len(opened.UnverifiedSigs) != 0 {
		return fmt.Errorf("%d signatures, %d unverified", len(opened.Sigs), len(opened.UnverifiedSigs))
	}
	changed := strings.Replace(vector.Note, "\n", "\n1", 1)
	if _, err := note.Open([]byte(changed), verifiers); err == nil {
		return fmt.Errorf("a changed note was opened")
	}
	fmt.Printf("ok: signed by %s\n%s", opened.Sigs[0].Name, opened.Text)
	return nil
}
