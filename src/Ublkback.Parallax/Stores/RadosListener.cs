using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// Answers requests about a VDI in a pool that this process holds open for writing, until it is disposed. Any thread.
/// </summary>
internal sealed class RadosListener : IAsyncDisposable, IDisposable
{
    private readonly WriterLock _owner;
    private readonly Action _onEnded;

    /// <summary>Answers from now on.</summary>
    /// <param name="owner">The lock of the VDI.</param>
    /// <param name="requests">Carries requests out.</param>
    /// <param name="onEnded">Is called when no request is being carried out any more.</param>
    public RadosListener(WriterLock owner, MessageDispatcher requests, Action onEnded)
    {
        _owner = owner;
        _onEnded = onEnded;
        owner.Begin(requests);
    }

    /// <summary>Requests that come from now on are told to try again.</summary>
    public void Dispose() => _owner.Postpone();

    /// <summary>Waits until the replies are sent to those that are carried out.</summary>
    public async ValueTask DisposeAsync()
    {
        Dispose();
        await _owner.SettleAsync().ConfigureAwait(false);
        _onEnded();
    }
}
