// Who is logged in. `checking` until the control plane was asked once.

export type SessionState = { is: 'checking' } | { is: 'in'; user: string } | { is: 'out'; ended: boolean };

class Session {
  state = $state<SessionState>({ is: 'checking' });

  entered(user: string): void {
    this.state = { is: 'in', user };
  }

  left(): void {
    this.state = { is: 'out', ended: false };
  }

  /** The control plane does not know the cookie (any more). */
  lost(): void {
    this.state = { is: 'out', ended: this.state.is === 'in' || (this.state.is === 'out' && this.state.ended) };
  }
}

export const session = new Session();
