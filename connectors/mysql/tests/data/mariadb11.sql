-- What MariaDB has since 11.
CREATE TABLE own11 (id INT PRIMARY KEY, i4 INET4, v VECTOR(3) NOT NULL, ts TIMESTAMP(3) NULL);
INSERT INTO own11 VALUES (1, '10.0.0.0', VEC_FromText('[1,-2.5,0]'), '2106-02-07 06:28:15.999'), (2, '0.0.0.0', VEC_FromText('[0,0,0]'), '2050-01-01'),
 (3, '255.255.255.255', VEC_FromText('[0.1,1e10,0]'), NULL);
