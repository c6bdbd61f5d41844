namespace Ublkback.Backend.Report;

/// <summary>Lets a few lines through in each stretch of time, for what a guest can trigger. Any thread.</summary>
internal sealed class LogLimiter(TimeProvider time)
{
    /// <summary>Lines in a stretch.</summary>
    public const int MaxLines = 5;

    private static readonly TimeSpan Stretch = TimeSpan.FromSeconds(10);

    private readonly Lock _lock = new();
    private long _stretchStart = time.GetTimestamp();
    private int _lines;
    private int _suppressed;

    /// <summary>
    /// Whether a line may be written now; <paramref name="suppressed"/> tells how many were not since the last one.
    /// </summary>
    public bool TryPass(out int suppressed)
    {
        lock (_lock)
        {
            suppressed = 0;
            if (time.GetElapsedTime(_stretchStart) >= Stretch)
            {
                _stretchStart = time.GetTimestamp();
                _lines = 0;
            }

            if (_lines >= MaxLines)
            {
                _suppressed++;
                return false;
            }

            _lines++;
            (suppressed, _suppressed) = (_suppressed, 0);
            return true;
        }
    }
}
