namespace Ublkback.Parallax.Stores;

/// <summary>Does something when it is disposed.</summary>
internal sealed class EndingAction(Action action) : IDisposable
{
    public void Dispose() => action();
}
