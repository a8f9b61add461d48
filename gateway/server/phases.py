"""The phases of an exchange and their transitions. Only :class:`gateway.server.exchange.Exchange` changes them.

========== ============================================ ==========
phase      what happens                                 next phase
========== ============================================ ==========
RECEIVING  the content is incomplete                    RECEIVING
RECEIVING  admitted                                     FORWARDED
RECEIVING  admitted, and answered by the gate itself    OVER
RECEIVING  a key is looked up, or a signature claimed   DECIDING
RECEIVING  a key is looked up before the content        DECIDING
RECEIVING  refused                                      OVER
RECEIVING  refused, little content is still to come     DISCARDING
DECIDING   the key is known, content is accepted        RECEIVING
DECIDING   admitted                                     FORWARDED
DECIDING   admitted, and answered by the gate itself    OVER
DECIDING   refused                                      OVER
FORWARDED  an interim response                          FORWARDED
FORWARDED  a switch of protocols                        OVER
FORWARDED  the response's head                          RESPONDING
FORWARDED  no response                                  OVER
FORWARDED  content too slow or too large                OVER
RESPONDING the response's end                           OVER
RESPONDING the response breaks off                      OVER
RESPONDING content too slow or too large                OVER
DISCARDING more of the content                          DISCARDING
DISCARDING the content's end                            OVER
DISCARDING content too slow                             OVER
any        the client has disconnected                  OVER
========== ============================================ ==========
"""

from typing import Final

# Plain integers: looking up an enumeration's members is slow on every request.
RECEIVING: Final = 0
DECIDING: Final = 1
FORWARDED: Final = 2
RESPONDING: Final = 3
DISCARDING: Final = 4
OVER: Final = 5
