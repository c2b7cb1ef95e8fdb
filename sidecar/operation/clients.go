package operation

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Client is what is known of a connected client.
type Client struct {
	ID         int64
	Since      time.Time
	Name       string
	LibName    string
	LibVersion string
}

// Clients lists the sessions in progress. It is safe for concurrent use.
type Clients struct {
	mu      sync.Mutex
	last    int64
	clients map[*Client]struct{}
}

// NewClients returns an empty list.
func NewClients() *Clients { return &Clients{clients: make(map[*Client]struct{})} }

// Len returns the number of sessions in progress.
func (c *Clients) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.clients)
}

// Add lists a session that begins. Its client may be read by the session alone, and
// changed only with Change.
func (c *Clients) Add() *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	cl := &Client{ID: c.last, Since: time.Now()}
	c.clients[cl] = struct{}{}
	return cl
}

// Remove ends it. It may be called more than once.
func (c *Clients) Remove(cl *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.clients, cl)
}

// Change changes what is known of a client, under the list's lock.
func (c *Clients) Change(cl *Client, change func(*Client)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(cl)
}

// List returns copies, by id.
func (c *Clients) List() []Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Client, 0, len(c.clients))
	for cl := range c.clients {
		all = append(all, *cl)
	}
	slices.SortFunc(all, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// longestName of clients and their libraries, in bytes.
const longestName = 256

// CheckName returns why a name is not fit to be listed, empty if it is.
func CheckName[T string | []byte](name T) (fault string) {
	if len(name) > longestName {
		return fmt.Sprintf("a client's name and library have at most %d bytes", longestName)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return "Client names cannot contain spaces, newlines or special characters."
		}
	}
	return ""
}
